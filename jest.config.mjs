/** ESM, straight from the sources: a stack trace names the line you wrote. */
export default {
  testEnvironment: 'node',
  rootDir: '.',
  testMatch: ['<rootDir>/test/**/*.test.ts'],
  extensionsToTreatAsEsm: ['.ts'],
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      { jsc: { parser: { syntax: 'typescript' }, target: 'es2022' }, module: { type: 'es6' } },
    ],
  },
  moduleNameMapper: {
    '^@escrowmq/protocol$': '<rootDir>/protocol/src/index.ts',
    '^@escrowmq/producer$': '<rootDir>/producer-sdk/src/index.ts',
    '^@escrowmq/consumer$': '<rootDir>/consumer-sdk/src/index.ts',
    '^@escrowmq/local-servers$': '<rootDir>/local-servers/src/index.ts',
    '^(\\.{1,2}/.*)\\.js$': '$1',
  },
  modulePathIgnorePatterns: ['<rootDir>/.*/dist/'],
};
