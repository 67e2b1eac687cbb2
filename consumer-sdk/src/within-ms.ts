/** Waits for the work, at most that long. What the work rejects with within the time is thrown. */
export async function withinMs(work: Promise<void>, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const tooLong = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, timeoutMs);
  });
  await Promise.race([work, tooLong]);
  clearTimeout(timer);
}
