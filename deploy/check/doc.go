// Package check decodes the Kubernetes manifests of deploy/kubernetes strictly,
// with the types that Kubernetes itself uses, and checks what they promise each
// other. It is a module of its own: nothing else needs those types.
package check
