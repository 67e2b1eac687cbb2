import { knexLayer } from '../support/producer-layers/knex.js';
import { describeLayer } from '../support/producer-layers/suite.js';

describeLayer(knexLayer);
