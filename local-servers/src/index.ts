export { mysqlForTests, rabbitmqForTests, type TestMysql, type TestServer } from './for-tests.js';
export { freePorts } from './free-port.js';
export {
  createMysqlDatabase,
  dropMysqlDatabases,
  type PrivateMysql,
  type PrivateMysqlOptions,
  startPrivateMysql,
} from './mysql.js';
export { ensureServerPackages, type Server } from './packages.js';
export {
  type PrivateRabbitmq,
  type PrivateRabbitmqOptions,
  startPrivateRabbitmq,
} from './rabbitmq.js';
