import { describeConsumerLayer } from '../support/consumer-database-suite.js';
import { typeOrmLayer } from '../support/producer-layers/typeorm.js';

describeConsumerLayer(typeOrmLayer);
