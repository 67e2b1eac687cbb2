import { describeConsumerLayer } from '../support/consumer-database-suite.js';
import { mysql2Layer } from '../support/consumer-layers/layer.js';

describeConsumerLayer(mysql2Layer, true);
