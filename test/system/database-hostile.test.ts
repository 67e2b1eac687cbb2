import { hostileMysql2, hostilePg, hostileSqlite } from '../support/hostile/drivers.js';
import { describeHostile } from '../support/hostile/suite.js';

for (const layer of hostileMysql2) describeHostile(layer);
for (const layer of hostilePg) describeHostile(layer);
for (const layer of hostileSqlite) describeHostile(layer);
