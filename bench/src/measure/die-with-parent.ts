/*
 * Loaded first in every broker of the bench (`node --import`): when the bench is gone, however it
 * ended, the pipe between the two closes and the broker goes as well.
 */
process.once('disconnect', () => process.kill(process.pid, 'SIGKILL'));
// The pipe alone must not keep a process alive that has nothing else to do.
process.channel?.unref();
