export {
  createMysqlDatabase,
  PrivateMysql,
  type PrivateMysqlOptions,
  startPrivateMysql,
} from './mysql.js';
export { ensureServerPackages, type Server } from './packages.js';
export { PrivateRabbitmq, type PrivateRabbitmqOptions, startPrivateRabbitmq } from './rabbitmq.js';
