import { describeConsumerLayer } from '../support/consumer-database-suite.js';
import { prismaLayer, prismaTextLayer } from '../support/producer-layers/prisma.js';

describeConsumerLayer(prismaLayer);
describeConsumerLayer(prismaTextLayer);
