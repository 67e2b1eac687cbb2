import {
  hostileDrizzleMysql,
  hostileDrizzlePostgres,
  hostileKnex,
  hostileKysely,
  hostilePrisma,
  hostileSequelize,
  hostileTypeOrm,
} from '../support/hostile/layers.js';
import { describeHostile } from '../support/hostile/suite.js';

for (const layer of hostileKnex) describeHostile(layer);
describeHostile(hostileKysely);
describeHostile(hostileDrizzleMysql);
describeHostile(hostileDrizzlePostgres);
describeHostile(hostileSequelize);
describeHostile(hostileTypeOrm);
describeHostile(hostilePrisma);
