import { describeProducerDatabase } from '../support/producer-database-suite.js';
import { POSTGRES } from '../support/producer-databases.js';
import {
  describeAmbiguousCommit,
  describeProducerCrash,
} from '../support/producer-fault-suites.js';
import { testProducerRace } from '../support/producer-race-suite.js';

describeProducerDatabase(POSTGRES);
describeProducerCrash(POSTGRES);
testProducerRace(POSTGRES);
describeAmbiguousCommit(POSTGRES, 20);
