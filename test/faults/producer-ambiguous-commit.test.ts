import { MARIADB, POSTGRES } from '../support/producer-databases.js';
import { describeAmbiguousCommit } from '../support/producer-fault-suites.js';

/** As often as the prototype was cut when it was found that a client sees the same either way. */
const TRIALS = 200;

describeAmbiguousCommit(MARIADB, TRIALS);
describeAmbiguousCommit(POSTGRES, TRIALS);
