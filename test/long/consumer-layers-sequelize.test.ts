import { afterAll, beforeAll, jest } from '@jest/globals';
import { describeConsumerLayer } from '../support/consumer-database-suite.js';
import { sequelizeLayer } from '../support/producer-layers/sequelize.js';

// Where a ROLLBACK finds its connection lost, Sequelize says so on the console, by no logger of its own.
beforeAll(() => {
  jest.spyOn(console, 'warn').mockImplementation(() => undefined);
});
afterAll(() => {
  jest.restoreAllMocks();
});

describeConsumerLayer(sequelizeLayer);
