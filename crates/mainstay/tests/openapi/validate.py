"""Says everything that is wrong with the OpenAPI document on its standard input."""

import json
import sys

from openapi_spec_validator import OpenAPIV31SpecValidator

document = json.load(sys.stdin)
assert document["openapi"].startswith("3.1."), document["openapi"]
faults = 0
for error in OpenAPIV31SpecValidator(document).iter_errors():
    faults += 1
    place = "/".join(str(part) for part in error.absolute_path)
    print(f"{place}: {error.message[:400]}")
operations = sum(len(methods) for methods in document["paths"].values())
print(f"{operations} operations, {faults} faults")
sys.exit(faults != 0)
