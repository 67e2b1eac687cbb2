import { describeConsumerLayer } from '../support/consumer-database-suite.js';
import { knexLayer } from '../support/producer-layers/knex.js';

describeConsumerLayer(knexLayer);
