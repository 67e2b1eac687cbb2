import type { World } from '../world/world.js';

/*
 * RabbitMQ crashes and comes back on its data. One fact to know: RabbitMQ 3.10 forgets a quorum
 * queue that was declared just before a SIGKILL, so it is restarted gracefully once after the
 * queues were declared, before the first fault.
 */

export async function killRabbitmq({ rabbitmq }: World): Promise<void> {
  await rabbitmq.kill();
  await rabbitmq.restart();
}
