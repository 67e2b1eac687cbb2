import { prismaLayer } from '../support/producer-layers/prisma.js';
import { describeLayer } from '../support/producer-layers/suite.js';

describeLayer(prismaLayer);
