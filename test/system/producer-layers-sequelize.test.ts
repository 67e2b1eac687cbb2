import { sequelizeLayer } from '../support/producer-layers/sequelize.js';
import { describeLayer } from '../support/producer-layers/suite.js';

describeLayer(sequelizeLayer);
