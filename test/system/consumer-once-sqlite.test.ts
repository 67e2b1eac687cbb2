import { describeConsumerLayer } from '../support/consumer-database-suite.js';
import { sqliteLayer } from '../support/consumer-layers/layer.js';

describeConsumerLayer(sqliteLayer, true);
