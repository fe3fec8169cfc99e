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

// SetTimeouts shortens what a client may take; before Start.
func (a *API) SetTimeouts(head, all time.Duration) {
	a.server.http.ReadHeaderTimeout, a.server.http.ReadTimeout = head, all
}
