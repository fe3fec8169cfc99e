// Package web is the page of `madang dev`: plain HTML, CSS and JavaScript
// modules that load nothing from elsewhere. client.js is the client's side of
// the wire contract and knows nothing of the page; the other modules are the
// page and know the contract only through it.
package web

import "embed"

// Files are the page's files.
//
//go:embed *.html *.css *.js *.svg
var Files embed.FS
