// A measurement in the manner of the provider "web" of Argo Rollouts, with its language of conditions (antonmedv/expr): a status that is not 2xx
// is an error, a body that is no JSON a text, and the conditions decide. It reads one JSON object a line and writes one:
// {"url", "token", "success", "failure"} and {"phase", "message"}.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/antonmedv/expr"
)

type order struct {
	URL     string `json:"url"`
	Token   string `json:"token"`
	Success string `json:"success"`
	Failure string `json:"failure"`
}

type outcome struct {
	Phase   string `json:"phase"`
	Message string `json:"message"`
}

func holds(condition string, result interface{}) (bool, error) {
	environment := map[string]interface{}{"result": result}
	program, err := expr.Compile(condition, expr.Env(environment))
	if err != nil {
		return false, err
	}
	value, err := expr.Run(program, environment)
	if err != nil {
		return false, err
	}
	if answer, fits := value.(bool); fits {
		return answer, nil
	}
	return false, fmt.Errorf("the condition gives a %T", value)
}

func measure(o order) outcome {
	request, err := http.NewRequest("GET", o.URL, nil)
	if err != nil {
		return outcome{"Error", err.Error()}
	}
	if o.Token != "" {
		request.Header.Set("Authorization", "Bearer "+o.Token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return outcome{"Error", err.Error()}
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		return outcome{"Error", response.Status}
	}
	body, _ := io.ReadAll(response.Body)
	var result interface{} = string(body)
	var parsed map[string]interface{}
	if json.Unmarshal(body, &parsed) == nil {
		result = parsed["data"]
	}
	success, err := holds(o.Success, result)
	if err != nil {
		return outcome{"Error", err.Error()}
	}
	failure, err := holds(o.Failure, result)
	if err != nil {
		return outcome{"Error", err.Error()}
	}
	switch {
	case failure:
		return outcome{"Failed", ""}
	case success:
		return outcome{"Successful", ""}
	}
	return outcome{"Inconclusive", ""}
}

func main() {
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for in.Scan() {
		var o order
		if json.Unmarshal(in.Bytes(), &o) != nil {
			os.Exit(2)
		}
		out.Encode(measure(o))
	}
}
