// Package chat holds what the senders' side and the receivers' side must agree
// on: the words of the domain, who may do what, and the two ports through which
// Redis is reached: Store for rooms and sends, Feed for gateways. It knows
// neither HTTP nor sockets nor Redis.
package chat
