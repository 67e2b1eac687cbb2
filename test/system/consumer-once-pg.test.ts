import { describeConsumerLayer } from '../support/consumer-database-suite.js';
import { pgLayer } from '../support/consumer-layers/layer.js';

describeConsumerLayer(pgLayer, true);
