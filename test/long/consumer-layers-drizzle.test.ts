import { describeConsumerLayer } from '../support/consumer-database-suite.js';
import { drizzleMysqlLayer, drizzlePostgresLayer } from '../support/producer-layers/drizzle.js';

describeConsumerLayer(drizzleMysqlLayer);
describeConsumerLayer(drizzlePostgresLayer);
