import { describeAway } from '../support/away-suite.js';
import { mysql2Layer, pgLayer } from '../support/consumer-layers/layer.js';
import { drizzleMysqlLayer, drizzlePostgresLayer } from '../support/producer-layers/drizzle.js';
import { knexLayer } from '../support/producer-layers/knex.js';
import { kyselyLayer } from '../support/producer-layers/kysely.js';
import { prismaLayer } from '../support/producer-layers/prisma.js';
import { sequelizeLayer } from '../support/producer-layers/sequelize.js';
import { typeOrmLayer } from '../support/producer-layers/typeorm.js';

describeAway(mysql2Layer);
describeAway(pgLayer);
describeAway(knexLayer);
describeAway(kyselyLayer);
describeAway(drizzleMysqlLayer);
describeAway(drizzlePostgresLayer);
describeAway(typeOrmLayer);
describeAway(prismaLayer);
describeAway(sequelizeLayer);
