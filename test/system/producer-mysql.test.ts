import { describeProducerDatabase } from '../support/producer-database-suite.js';
import { MARIADB } from '../support/producer-databases.js';
import { describeProducerCrash } from '../support/producer-fault-suites.js';
import { testProducerRace } from '../support/producer-race-suite.js';

describeProducerDatabase(MARIADB);
describeProducerCrash(MARIADB);
testProducerRace(MARIADB);
