package api

// Routes are the table's routes as "METHOD path", for the comparison with the
// description.
func Routes() (all []string) {
	for _, r := range routes {
		all = append(all, r.method+" "+r.path)
	}
	return all
}
