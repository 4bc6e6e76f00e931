"""What is computed: metrics of texts and of answers, learned metrics, and how a dataset tells words."""
