import { kyselyLayer } from '../support/producer-layers/kysely.js';
import { describeLayer } from '../support/producer-layers/suite.js';

describeLayer(kyselyLayer);
