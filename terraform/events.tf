# Option `landing_events`: the landing bucket tells a queue what lands. docs/automation.md says what the sensor makes of it.

resource "aws_sqs_queue" "landing" {
  count = var.landing_events ? 1 : 0

  name                       = "${var.name}-landing"
  kms_master_key_id          = aws_kms_key.main.arn
  message_retention_seconds  = 1209600
  visibility_timeout_seconds = 120
  receive_wait_time_seconds  = 1
  redrive_policy             = jsonencode({ deadLetterTargetArn = aws_sqs_queue.dead[0].arn, maxReceiveCount = 5 })
}

resource "aws_sqs_queue" "dead" {
  count = var.landing_events ? 1 : 0

  name                      = "${var.name}-landing-dead"
  kms_master_key_id         = aws_kms_key.main.arn
  message_retention_seconds = 1209600
}

resource "aws_sqs_queue_redrive_allow_policy" "dead" {
  count = var.landing_events ? 1 : 0

  queue_url            = aws_sqs_queue.dead[0].id
  redrive_allow_policy = jsonencode({ redrivePermission = "byQueue", sourceQueueArns = [aws_sqs_queue.landing[0].arn] })
}

resource "aws_sqs_queue_policy" "landing" {
  count = var.landing_events ? 1 : 0

  queue_url = aws_sqs_queue.landing[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "EventsOfTheLandingBucket"
        Effect    = "Allow"
        Principal = { Service = "s3.amazonaws.com" }
        Action    = ["sqs:SendMessage"]
        Resource  = [aws_sqs_queue.landing[0].arn]
        Condition = {
          ArnEquals    = { "aws:SourceArn" = local.landing_bucket_arn }
          StringEquals = { "aws:SourceAccount" = local.landing_account }
        }
      },
      {
        Sid       = "OnlyByTLS"
        Effect    = "Deny"
        Principal = "*"
        Action    = ["sqs:SendMessage", "sqs:ReceiveMessage", "sqs:DeleteMessage"]
        Resource  = [aws_sqs_queue.landing[0].arn]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

# It replaces all notifications of a bucket, so that an existing bucket's are left to its owner.
resource "aws_s3_bucket_notification" "landing" {
  count = var.landing_events && local.own_landing ? 1 : 0

  bucket     = aws_s3_bucket.main["landing"].id
  depends_on = [aws_sqs_queue_policy.landing]

  dynamic "queue" {
    for_each = local.landing_prefixes

    content {
      queue_arn     = aws_sqs_queue.landing[0].arn
      events        = ["s3:ObjectCreated:*"]
      filter_prefix = queue.value
    }
  }
}
