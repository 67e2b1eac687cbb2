/*
 * Loaded first in every process of the soak (`node --import`): when the soak is gone, however it
 * ended, the pipe between the two closes and the process goes as well.
 */
process.once('disconnect', () => process.kill(process.pid, 'SIGKILL'));
// The pipe alone must not keep a process alive that has nothing else to do.
process.channel?.unref();
