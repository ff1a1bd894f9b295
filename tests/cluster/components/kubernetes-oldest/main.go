// Command kubernetes-oldest is an API server of the oldest Kubernetes that Lull supports, and the
// etcd of its time: the first argument picks one, the rest are its own flags. Nothing that needs
// nodes is in it.
package main

import (
	"fmt"
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	if len(os.Args) < 2 {
		fail("no component named")
	}
	name := os.Args[1]
	os.Args = os.Args[1:]
	switch name {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	default:
		fail(fmt.Sprintf("unknown component %q", name))
	}
}

func fail(why string) {
	fmt.Fprintf(os.Stderr, "%s; one of: etcd kube-apiserver\n", why)
	os.Exit(64)
}
