// Package chat holds what the senders' side and the receivers' side must agree
// on: the words of the domain, who may do what, and the ports through which
// Redis is reached: Store for rooms and sends, Attachments for what is known of
// files, Feed for gateways. It knows neither HTTP nor sockets nor Redis.
package chat
