import { drizzleMysqlLayer, drizzlePostgresLayer } from '../support/producer-layers/drizzle.js';
import { describeLayer } from '../support/producer-layers/suite.js';

describeLayer(drizzleMysqlLayer);
describeLayer(drizzlePostgresLayer);
