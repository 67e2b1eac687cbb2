import { fromSequelize } from '@escrowmq/database/sequelize';
import { DataTypes, type Model, Sequelize, type Transaction } from 'sequelize';
import type { Layer } from './layer.js';

export const sequelizeLayer: Layer<Transaction> = {
  name: 'Sequelize',
  engines: ['MariaDB', 'PostgreSQL'],
  async open(_engine, url) {
    const sequelize = new Sequelize(url, { logging: false });
    const Account = sequelize.define<Model<{ id: number }>>(
      'account',
      { id: { type: DataTypes.INTEGER, primaryKey: true } },
      { freezeTableName: true, timestamps: false },
    );
    return {
      database: fromSequelize(sequelize),
      enlistable: (transaction) => fromSequelize(transaction),
      begin: (work) => sequelize.transaction(work),
      nest: (transaction, work) => sequelize.transaction({ transaction }, work),
      insert: (transaction, id) => Account.create({ id }, { transaction }),
      run: (transaction, sql) => sequelize.query(sql, { transaction }),
      refused: [{ what: 'an object', make: () => fromSequelize({} as unknown as Sequelize) }],
      close: () => sequelize.close(),
    };
  },
};
