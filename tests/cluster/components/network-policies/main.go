// Command network-policies enforces NetworkPolicies on one node of the test cluster: the controller of
// kube-network-policies, with the node's kubeconfig.
//
// Its own command takes an in-cluster configuration alone. And it brings its own nftables rules, with a
// queue statement, which a kernel without CONFIG_NFT_QUEUE refuses: the log says so a few times, and
// nothing comes of it. lull-cluster has the node's first packets of connections queued by iptables, into
// the queue that the controller reads. Which of them pass is judged by the controller.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

func main() {
	klog.InitFlags(nil)
	kubeconfig := flag.String("kubeconfig", "", "who to be for the API server")
	node := flag.String("hostname-override", "", "the node's name")
	queue := flag.Int("nfqueue-id", 100, "which queue the node's packets are in")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, *kubeconfig, networkpolicy.Config{NodeName: *node, QueueID: *queue}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run returns when ctx is over.
func run(ctx context.Context, kubeconfig string, config networkpolicy.Config) error {
	access, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	// No admin policies: what is nil here is theirs.
	controller, err := networkpolicy.NewController(client, factory.Networking().V1().NetworkPolicies(),
		factory.Core().V1().Namespaces(), factory.Core().V1().Pods(), nil, nil, nil, nil, config)
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	return controller.Run(ctx)
}
