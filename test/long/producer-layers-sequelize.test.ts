import { afterAll, beforeAll, jest } from '@jest/globals';
import { sequelizeLayer } from '../support/producer-layers/sequelize.js';
import { describeLayer } from '../support/producer-layers/suite.js';

// Where a ROLLBACK finds its connection lost, Sequelize says so on the console, by no logger of its own.
beforeAll(() => {
  jest.spyOn(console, 'warn').mockImplementation(() => undefined);
});
afterAll(() => {
  jest.restoreAllMocks();
});

describeLayer(sequelizeLayer);
