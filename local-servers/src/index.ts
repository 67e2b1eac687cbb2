export {
  mysqlForTests,
  postgresForTests,
  rabbitmqForTests,
  type TestDatabaseServer,
  type TestServer,
} from './for-tests.js';
export { freePorts } from './free-port.js';
export {
  createMysqlDatabase,
  dropMysqlDatabases,
  type PrivateMysql,
  type PrivateMysqlOptions,
  startPrivateMysql,
} from './mysql.js';
export { mysqlStatement } from './mysql-statement.js';
export { ensurePackages, ensureServerPackages, type Server } from './packages.js';
export {
  createPostgresDatabase,
  dropPostgresDatabases,
  type PrivatePostgres,
  type PrivatePostgresOptions,
  startPrivatePostgres,
} from './postgres.js';
export { serverSetProblem, serverVersions } from './programs.js';
export {
  type PrivateRabbitmq,
  type PrivateRabbitmqOptions,
  startPrivateRabbitmq,
} from './rabbitmq.js';
export { parseServerSet, type ServerSet } from './server-sets.js';
export { startTcpProxy, type TcpProxy } from './tcp-proxy.js';
