package api

import "time"

// Routes are the table's routes as "METHOD path", for the comparison with the
// description.
func Routes() (all []string) {
	for _, r := range routes {
		all = append(all, r.method+" "+r.path)
	}
	return all
}

// Timeouts are what a client may take for a request, and all together for request,
// Store and answer.
func (a *API) Timeouts() (read, all time.Duration) {
	return a.server.http.ReadTimeout, a.server.http.WriteTimeout
}

// SetTimeouts shortens what a client may take; before Start.
func (a *API) SetTimeouts(head, all time.Duration) {
	a.server.http.ReadHeaderTimeout, a.server.http.ReadTimeout = head, all
}

// SetBodies makes the bound of bodies that have not come whole another, and a user's a
// quarter of it.
func (a *API) SetBodies(bytes int64) { a.bodies = newHeld(bytes, bytes/4) }
