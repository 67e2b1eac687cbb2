// The DTM server as its authors build it, without the admin pages and the drivers for service
// registries. Configured by the environment, as theirs is.
package main

import (
	"io"
	"net/http"
	"os"

	"github.com/dtm-labs/dtm/client/dtmcli"
	"github.com/dtm-labs/dtm/dtmsvr/entry"
)

// More than the branches that were ever seen in flight; each has a connection of its own.
const idleConnectionsMax = 1024

func main() {
	go endWithParent()
	keepBranchConnections()
	version := "v1.19.0"
	entry.Main(&version)
	select {}
}

// The parent holds the other end of standard input, which the kernel closes however it dies.
func endWithParent() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// DTM's HTTP client keeps one idle connection per CPU and one more. With 64 branches in flight it
// would open and close a connection for nearly every one, and no setting changes that.
func keepBranchConnections() {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns = idleConnectionsMax
	transport.MaxIdleConnsPerHost = idleConnectionsMax
	dtmcli.GetRestyClient().SetTransport(transport)
}
