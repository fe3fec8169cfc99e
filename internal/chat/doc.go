// Package chat holds what the senders' side and the receivers' side must agree
// on: the words of the domain, who may do what, and the ports through which
// Redis is reached. The API asks Store for rooms and sends, Retainer for how long
// they are kept, Attachments for what is known of files, Live for who is there, and
// Revoker to end what users hold; gateways ask Feed, Seats, Markers and Pacer. It
// knows neither HTTP nor sockets nor Redis.
package chat
