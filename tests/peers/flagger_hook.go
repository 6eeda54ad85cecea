// A caller of webhooks with the HTTP client of Flagger (hashicorp/go-retryablehttp) and its rule: a status above 202 is a no, and its body the
// reason. It reads one JSON object a line and writes one: {"url", "body", "retries"} and {"yes", "reason", "calls"}.
// Credentials stand in the address, for there is no other place.
package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

type order struct {
	URL     string `json:"url"`
	Body    string `json:"body"`
	Retries int    `json:"retries"`
}

type outcome struct {
	Yes    bool   `json:"yes"`
	Reason string `json:"reason"`
	Calls  int    `json:"calls"`
}

func ask(o order) outcome {
	calls := 0
	client := retryablehttp.NewClient()
	client.Logger = nil
	client.RetryMax = o.Retries
	client.RetryWaitMin = 10 * time.Millisecond
	client.RetryWaitMax = 20 * time.Millisecond
	client.HTTPClient.Timeout = 10 * time.Second
	client.RequestLogHook = func(retryablehttp.Logger, *http.Request, int) { calls++ }
	request, err := retryablehttp.NewRequest("POST", o.URL, strings.NewReader(o.Body))
	if err != nil {
		return outcome{false, "no request: " + err.Error(), calls}
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return outcome{false, "no answer: " + err.Error(), calls}
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return outcome{response.StatusCode <= 202, string(body), calls}
}

func main() {
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	in.Buffer(nil, 64<<20)
	for in.Scan() {
		var o order
		if json.Unmarshal(in.Bytes(), &o) != nil {
			os.Exit(2)
		}
		out.Encode(ask(o))
	}
}
