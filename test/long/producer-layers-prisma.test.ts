import { prismaLayer, prismaTextLayer } from '../support/producer-layers/prisma.js';
import { describeLayer } from '../support/producer-layers/suite.js';

describeLayer(prismaLayer);
describeLayer(prismaTextLayer);
