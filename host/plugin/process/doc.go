// Package process runs search strategies that are processes of their own, in
// any language: the host starts an executable and speaks the contract
// described in sdk/process/v1 with it, by gRPC over a unix socket. [Load]
// returns a [Plugin], which is a retrieval.Strategy.
//
// # What a plugin sees
//
// The keys and values of contexts lie in files without a name (kv.Arena). A
// plugin inherits a read-only descriptor of those that it was granted and maps
// them; a call says where in them the rows of a layer lie. Queries and ids
// alone cross the socket. A plugin runs with the rights of the user who runs
// the host: the grants and the read-only mapping keep mistakes from doing
// damage, they are no prison.
//
// # Life and death
//
// A plugin leads a process group of its own. It inherits the reading end of a
// pipe that ends with the host, however the host ends: on Linux the kernel
// then kills the group, elsewhere the SDK does. A plugin that ends or hangs is
// started again, later each time, and its indexes are restored from its last
// export or built again; searches whose index is not back are answered
// exactly meanwhile, or fail, as the configuration says.
package process
