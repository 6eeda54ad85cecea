// Says what conditions in the language of Argo Rollouts come to. Reads [{"success", "failure", "result"}] from standard input, writes
// ["Successful" | "Failed" | "Inconclusive" | "Error: ..."]; a condition that is empty was not given.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/antonmedv/expr"
)

type measurement struct {
	Success string
	Failure string
	Result  interface{}
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
	truth, ok := value.(bool)
	if !ok {
		return false, fmt.Errorf("a condition is true or false, not %T", value)
	}
	return truth, nil
}

func phase(each measurement) string {
	result := each.Result
	// The provider of Prometheus gives a vector of numbers.
	if list, ok := result.([]interface{}); ok {
		numbers := make([]float64, 0, len(list))
		for _, value := range list {
			numbers = append(numbers, value.(float64))
		}
		result = numbers
	}
	succeeded, failed := each.Success == "", false
	var err error
	if each.Success != "" {
		if succeeded, err = holds(each.Success, result); err != nil {
			return "Error: " + err.Error()
		}
	}
	if each.Failure != "" {
		if failed, err = holds(each.Failure, result); err != nil {
			return "Error: " + err.Error()
		}
	}
	switch {
	case failed:
		return "Failed"
	case succeeded:
		return "Successful"
	case each.Failure == "":
		return "Failed"
	}
	return "Inconclusive"
}

func main() {
	var asked []measurement
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		panic(err)
	}
	said := make([]string, 0, len(asked))
	for _, each := range asked {
		said = append(said, phase(each))
	}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		panic(err)
	}
}
