"""How good a model is: metrics of labelled predictions, and the report of `carjax evaluate`."""
