/** The fault proxy by its former name: it is public now, `FaultProxy` of `@replicant/node/testing`. */
export {
  type Direction,
  type Ending,
  FaultProxy as Proxy,
  type FaultProxyShape as ProxyShape
} from "@replicant/node/testing"
