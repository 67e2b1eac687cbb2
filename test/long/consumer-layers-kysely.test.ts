import { describeConsumerLayer } from '../support/consumer-database-suite.js';
import { kyselyLayer } from '../support/producer-layers/kysely.js';

describeConsumerLayer(kyselyLayer);
