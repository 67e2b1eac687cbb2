import { describeLayer } from '../support/producer-layers/suite.js';
import { typeOrmLayer } from '../support/producer-layers/typeorm.js';

describeLayer(typeOrmLayer);
