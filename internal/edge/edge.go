// Package edge is the entry of every server of the cluster: what it does before it works on a call,
// whatever protocol the call comes by: it limits connections that have not authenticated,
// authenticates callers by certificate or bearer token, gives each call a request id, bounds the
// rate at which a caller makes calls, and puts calls into the flows of package fairness. Package
// rpc uses it for gRPC; Listener and Handler use it for net/http.
//
// An Entry holds the state of one server. The order of its checks is that of their cost:
//
//  1. the access list, before a byte of the connection is read (package listener)
//  2. the Guard: how many connections authenticate at once, overall and per source address
//  3. the TLS handshake
//  4. Authenticate: the certificate or the token of a call, and its request id
//  5. Admit: whether the token was revoked, and the caller's rate
//  6. the seat of the call's flow
//  7. Receive: how many requests of a caller are received at once
//
// All limits before authentication are per source address, and later ones are per caller, so that
// one of them cannot use up what others need. An IPv6 source is its /64 prefix, since one host owns
// that many addresses. Callers that authenticate do not count against the limits of their source:
// many nodes or people may share one address behind NAT or a load balancer. When thousands of them
// connect at once, after a restart of the server, a bounded number authenticates at a time, in the
// order of their arrival, and the others wait (queue.go).
//
// Errors are statuses of package apierr. Handler turns them into Kubernetes' Status objects.
package edge
