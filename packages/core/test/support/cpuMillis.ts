/**
 * The time that this thread has worked, in milliseconds: what a step costs, whatever else the machine does meanwhile. That is
 * what a test compares with a limit, and not the time of day.
 */
export const cpuMillis = (): number => {
  const { system, user } = process.threadCpuUsage()
  return (system + user) / 1000
}
