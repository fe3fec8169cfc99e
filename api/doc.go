// Package api is the senders' side: an HTTP API with JSON bodies and
// problem+json errors, on Gin. It turns bytes into values, asks the Store, and
// turns outcomes into HTTP; rooms, rights and the log are the Store's business,
// sockets the gateway's. Files pass through it piece by piece, between clients and
// a blob.Store (attachments.go, upload.go, download.go). It keeps no state that must survive and starts no
// goroutine before Start. Routes are one table (routes.go), errors become
// statuses in one place (problem.go), bodies become values in another
// (decode.go). internal/app builds and runs it.
package api
